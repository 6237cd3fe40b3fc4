"""What ``saledit fix`` does before and behind an edit: bounds, a trial, a merged model checked."""
