"""Methods x data x seeds from one file: trained and scored in processes of their own, resumed, and put into tables."""
