"""Who may use the server: users, their roles, their sessions, and where their passwords are checked."""
