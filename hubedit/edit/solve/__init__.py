"""Keys, residuals and reports of one site: what the methods' solves have in common."""
