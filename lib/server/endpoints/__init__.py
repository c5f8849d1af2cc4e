"""Answer requests, one file for each kind; `lib/server/routes.py` lists them."""
