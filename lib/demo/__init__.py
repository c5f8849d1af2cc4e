"""Demo studies with known truth, and a scripted annotator who clicks in them."""
