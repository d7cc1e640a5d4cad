"""HTTP: one request's vocabulary: problems, cursors, aiohttp's connection."""
