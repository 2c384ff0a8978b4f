"""Logits to text: greedy, beam search with n-grams of symbols or words, hot words, alignment."""
