"""Guards against items that reveal an answer or an evaluation problem."""
