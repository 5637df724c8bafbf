"""Makes self-contained HTML pages, for the report and the inspection."""
