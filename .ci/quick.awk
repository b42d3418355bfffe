# Reads `go test -v ./...`: prints a line for each package, what a failed one said, and at
# the end which tests were not run, and why.
!/^=== / && !/^ *--- PASS: / { said = said $0 "\n" }
/^=== / { reason = "" }
/^    .*_test\.go:[0-9]+: / { reason = $0; sub(/^ *[^ ]+ /, "", reason) }
/^--- SKIP: / { left[reason] = left[reason] " " $3; n++ }
/^\?|no test files\]$/ { said = "" }
/^ok / { print; said = "" }
/^FAIL\t/ { printf "%s", said; said = "" }
END {
	printf "%s", said
	if (n) print "\n" n " tests were not run:"
	for (reason in left) print "  " reason ":" left[reason]
}
