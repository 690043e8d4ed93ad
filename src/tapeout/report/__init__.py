"""`Figure`, `Report`, and how they are shown: terminal, JSON, pictures, differences."""
