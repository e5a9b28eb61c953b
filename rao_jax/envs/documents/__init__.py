"""Long documents of real text: questions on who speaks in plays, with the right answer for any slice known by rule."""
