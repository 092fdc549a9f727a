"""Fine-tuning and distillation of reduced encoders on `transformers.Trainer`."""
