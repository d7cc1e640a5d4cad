"""The evening: three apps, what operators do between eight and ten, and what must come of it."""
