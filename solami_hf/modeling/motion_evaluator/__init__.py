"""The text-motion evaluator: motions and captions to embeddings that can be compared."""
