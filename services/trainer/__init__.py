"""The trainer: supervised fine-tuning in a child process, checkpoint choice, publishing."""
