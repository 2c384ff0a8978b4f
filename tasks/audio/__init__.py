"""The one reader of audio: containers, decoding to the end, channels and rates, for every door."""
