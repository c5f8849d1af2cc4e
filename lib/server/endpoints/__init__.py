"""What the server answers, one file for each kind of request; `lib/server/routes.py` lists them."""
