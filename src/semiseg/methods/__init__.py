"""Training methods: one file each, to be read together with its paper."""
