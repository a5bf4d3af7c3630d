"""Where candidates come from: the model's own index, popularity, what is like the user's items, what the user had before."""
