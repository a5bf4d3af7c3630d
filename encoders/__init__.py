"""The shelf of encoders: one file a kind of feature, each turning a column into vectors.

identity (ids), categorical, continuous, text (hashed n-grams), sentence (a language model), image (cnn, torchvision),
clip, temporal (number sequences, timestamps), history (lists of item ids).
"""
