"""What compression did to a model: its weights, its activations, its predictions and its knowledge."""
