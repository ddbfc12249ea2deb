"""Feature extractors that several papers' models share."""
