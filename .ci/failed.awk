# Reads the output of `go test` and says once more what failed: of a long output, often
# its end alone is kept.
/Error Trace:|DATA RACE|^panic: / { left = 40 }
/^ *(--- |=== )|^FAIL/ { left = 0 }
/^ *--- FAIL: |^FAIL\t|\.go:[0-9]+:[0-9]+: / || left-- > 0 { failed[n++] = $0 }
END {
	if (n) print "\nWhat failed:"
	for (i = 0; i < n; i++) print failed[i]
}
