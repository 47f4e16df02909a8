"""Networks written for use without semiseg."""
