"""Check requests before they are answered, and answer them within limits."""
