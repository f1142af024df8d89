"""Apple's ReDrafter: a small recurrent network drafts, the model verifies many tokens at once."""
