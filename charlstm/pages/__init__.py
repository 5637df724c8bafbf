"""HTML pages that need nothing but themselves: what the report and the inspection share."""
