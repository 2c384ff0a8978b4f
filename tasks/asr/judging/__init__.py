"""Any recogniser on any transcribed speech: rows to items, items to texts, texts to rates."""
