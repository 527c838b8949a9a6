"""What is said of packages: budgets, figures, comparison, Pareto front, prices."""
