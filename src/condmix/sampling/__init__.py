"""Pictures from a trained model."""
