"""What the stage scripts share: model, objective, random stream, training loop, figures, tracking."""
