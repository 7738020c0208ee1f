"""Image generation by transfer learning."""
