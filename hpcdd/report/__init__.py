"""Tables, figures and an HTML page of what was measured."""
