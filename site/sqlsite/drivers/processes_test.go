package drivers

const childJob = "CARILLON_TEST_JOB"

func runChild(string) int { return 2 }
