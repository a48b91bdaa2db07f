"""The chapter that sets the run against the published arrays, claim by claim."""
