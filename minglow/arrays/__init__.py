"""Arrays: shapes and checks, devices, threads of the matrix products, memory."""
