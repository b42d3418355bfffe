// The end of package browser that drives Chromium, by Playwright. Its arguments are the program and further flags. A line of
// standard input is a command, [name, arguments...] in JSON, and a line of standard output its answer, {result} or {error}. It ends
// the browser at the end of its input.
'use strict'
const readline = require('node:readline')
const {chromium} = require('playwright-core')

const [executablePath, patience, ...args] = process.argv.slice(1)

async function main() {
  const browser = await chromium.launch({executablePath, args: ['--disable-gpu', ...args]})
  const context = await browser.newContext()
  const page = await context.newPage()
  page.setDefaultTimeout(+patience)
  const devtools = await context.newCDPSession(page)
  let requests = [], problems = []
  page.on('request', r => requests.push(r.method() + ' ' + r.url()))
  page.on('console', m => {
    if (['error', 'warning', 'assert'].includes(m.type())) problems.push((m.text() + ' ' + m.location().url).trim())
  })
  page.on('pageerror', e => problems.push(String(e)))

  const commands = {
    // What was asked for is there, and may be loading still.
    open: url => page.goto(url, {waitUntil: 'commit'}).then(() => '', e => (/net::\w+/.exec(e.message) ?? [e.message])[0]),
    eval: expression => page.evaluate(expression),
    press: key => page.keyboard.press(key),
    type: text => page.keyboard.type(text),
    click: selector => page.click(selector),
    offline: is => context.setOffline(is),
    requests: () => requests.splice(0),
    problems: () => problems.splice(0),
    // A context of Playwright is a phone's or not for all its life.
    view: async (width, height, mobile, colorScheme) => {
      await page.setViewportSize({width, height})
      await devtools.send('Emulation.setDeviceMetricsOverride', {width, height, deviceScaleFactor: 1, mobile})
      await page.emulateMedia({colorScheme})
    },
    // Playwright's own pictures are neither WebP nor of what the line above says.
    picture: async (format, whole) => (await devtools.send('Page.captureScreenshot', {format, captureBeyondViewport: whole})).data,
  }
  for await (const line of readline.createInterface({input: process.stdin})) {
    const [name, ...of] = JSON.parse(line)
    let answer
    try {
      answer = {result: await commands[name](...of) ?? null}
    } catch (e) {
      answer = {error: e.message}
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  await browser.close()
}

main().catch(e => {
  console.error(e)
  process.exit(1)
})
