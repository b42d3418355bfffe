// Package docs reads README and the pages of this folder, so that tests can run the
// commands that they tell the reader to type.
//
// A block of such a page is fenced by ``` and says what it is:
//
//	sh       commands for a shell at the top of the project's tree
//	console  a session at the router's console: prompts, commands, and what they print
//	rsc      configuration in the router's language
//	uboot    commands for a boot loader's prompt
//	text     what a program prints, a table, a picture: nothing to type
//
// Anything else is an error, and so is a block that is indented by four spaces, which
// Markdown has too and which cannot say what it is.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Kinds are the words that may follow a fence.
var Kinds = []string{"sh", "console", "rsc", "uboot", "text"}

// Block is a fenced block of a page.
type Block struct {
	File string
	Line int // of its first line of text, from 1
	Kind string
	Text string
}

// Span is a piece of code within a sentence: `make quick`.
type Span struct {
	File string
	Line int
	Text string
}

// Page is a page of the documentation.
type Page struct {
	File   string
	Text   string
	Blocks []Block
	Spans  []Span
}

// Pages reads all pages of the project whose tree is at root.
func Pages(root string) ([]Page, error) {
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	var pages []Page
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		page, err := Parse(file, string(text))
		if err != nil {
			return nil, err
		}
		pages = append(pages, page)
	}
	return pages, nil
}

var span = regexp.MustCompile("`([^`]+)`")

// Parse reads one page. Its errors are "FILE:LINE: what is wrong".
func Parse(file, text string) (Page, error) {
	page := Page{File: file, Text: text}
	var block *Block
	blank := true
	number := 0
	// A paragraph is read at its end: code may begin in one of its lines and end in the next.
	paragraph, start := "", 0
	endParagraph := func() {
		for _, m := range span.FindAllStringSubmatchIndex(paragraph, -1) {
			line := start + strings.Count(paragraph[:m[0]], "\n")
			page.Spans = append(page.Spans, Span{file, line, strings.Join(strings.Fields(paragraph[m[2]:m[3]]), " ")})
		}
		paragraph = ""
	}
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		indented := strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t")
		kind, fence := strings.CutPrefix(strings.TrimLeft(line, " "), "```")
		switch {
		case fence && block != nil:
			page.Blocks = append(page.Blocks, *block)
			block = nil
		case fence:
			endParagraph()
			if !slices.Contains(Kinds, kind) {
				return page, fmt.Errorf("%s:%d: a block of kind %q: want one of %s", file, number, kind, strings.Join(Kinds, ", "))
			}
			block = &Block{File: file, Line: number + 1, Kind: kind}
		case block != nil:
			block.Text += line + "\n"
		case indented && blank:
			return page, fmt.Errorf("%s:%d: an indented block: fence it, so that it says what it is", file, number)
		case line == "":
			endParagraph()
		default:
			if paragraph == "" {
				start = number
			}
			paragraph += line + "\n"
		}
		blank = line == ""
	}
	if block != nil {
		return page, fmt.Errorf("%s:%d: the block does not end", file, block.Line)
	}
	endParagraph()
	return page, nil
}

// Command is a command that a page tells the reader to type.
type Command struct {
	File string
	Line int
	Text string
}

// Commands are those of a block for a shell or a boot loader, without comments. A command
// that a backslash continues is one, in one line.
func (b Block) Commands() []Command {
	var commands []Command
	text, start := "", 0
	number := b.Line - 1
	for line := range strings.Lines(b.Text) {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		if at := strings.Index(line, "  #"); at >= 0 {
			line = strings.TrimSpace(line[:at])
		}
		if text == "" {
			start = number
		}
		before, continued := strings.CutSuffix(line, `\`)
		text = strings.TrimSpace(text + " " + strings.TrimSpace(before))
		if !continued && text != "" {
			commands = append(commands, Command{b.File, start, text})
			text = ""
		}
	}
	return commands
}

// Typed is a command at the router's console, and what it prints.
type Typed struct {
	File   string
	Line   int
	Menu   string // that of the prompt: "ip socks access", or "" for the root
	Text   string
	Output string
}

var prompt = regexp.MustCompile(`^\[admin@postern\] ([a-z -]*)> ?(.*)$`)

// Typed are the commands behind the prompts of a block of any kind.
func (b Block) Typed() []Typed {
	var typed []Typed
	number := b.Line - 1
	continued := false
	for line := range strings.Lines(b.Text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		m := prompt.FindStringSubmatch(line)
		switch {
		case m != nil:
			typed = append(typed, Typed{File: b.File, Line: number, Menu: strings.TrimSpace(m[1]), Text: m[2]})
		case len(typed) == 0:
			continue
		case continued:
			typed[len(typed)-1].Text += strings.TrimPrefix(line, `\...`)
		default:
			typed[len(typed)-1].Output += line + "\n"
			continue
		}
		last := &typed[len(typed)-1]
		last.Text, continued = strings.CutSuffix(last.Text, `\`)
	}
	return typed
}
