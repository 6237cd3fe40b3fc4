"""From a configuration to what a verb works with: records, model, samples, banks, processes."""
