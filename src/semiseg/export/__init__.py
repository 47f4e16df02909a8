"""Export of networks for use without semiseg."""
