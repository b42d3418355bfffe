module v2

go 1.26.0

require gopkg.in/routeros.v2 v2.0.0-20190905230420-1bbf141cdd91
