package console

// Hashes makes the hashes of the passwords that lines set. Lines may run more than once: the
// router runs them again when the configuration has changed meanwhile, and an import runs again
// to find the line that was wrong. A hash is slow, so a password's is made once. If lines set
// the same password several times, each has a hash of its own.
type Hashes struct {
	// Make makes a hash; see Live.HashPassword.
	Make func(password, now string) (string, error)
	made map[string][]string
}

// Run returns the Live.HashPassword of one run of the lines.
func (h *Hashes) Run() func(password, now string) (string, error) {
	used := map[string]int{}
	return func(password, now string) (string, error) {
		n := used[password]
		used[password]++
		if n < len(h.made[password]) {
			return h.made[password][n], nil
		}
		hash, err := h.Make(password, now)
		if err != nil {
			return "", err
		}
		if h.made == nil {
			h.made = map[string][]string{}
		}
		h.made[password] = append(h.made[password], hash)
		return hash, nil
	}
}
