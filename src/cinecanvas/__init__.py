"""cinecanvas: video generation you host yourself."""
