"""Authenticate users: accounts, roles, sessions, and where passwords are checked."""
