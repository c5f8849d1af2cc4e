"""Store clicks and masks, and accept masks."""
