module birthmark/judge

go 1.19
