# Reads `go test -v ./...`: prints a line for each package, all that a failed package
# said, and at the end which tests were left out, and why.
{ said = said $0 "\n" }
/^=== / { reason = "" }
/^    .*_test\.go:[0-9]+: / { reason = $0; sub(/^ *[^ ]+ /, "", reason) }
/^--- SKIP: / { left[reason] = left[reason] " " $3; n++ }
/^(ok|\?|---) .*\[no test files\]/ { said = ""; next }
/^ok / { print; said = "" }
/^FAIL\t/ { printf "%s", said; said = "" }
END {
	printf "%s", said
	if (n) print "\n" n " tests were not run:"
	for (reason in left) print "  " reason ":" left[reason]
}
