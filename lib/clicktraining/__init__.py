"""Train the structure net on real and on random structures."""
