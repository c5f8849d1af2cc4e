"""Write a report of a project as one page."""
