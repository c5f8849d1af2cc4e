"""Talk to a DICOMweb archive."""
