"""Trained models as one plain process uses them: loaded, asked, exported. No MPI in here."""
