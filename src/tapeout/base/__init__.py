"""The ground floor: user errors, text forms and fingerprints of specs, atomic files, the Engine protocol."""
