"""Tables, figures, drawings, the page and the dashboard of a study."""
